"""From product files to the batches that the networks read (MUFIN Sec. 4, Datasets; App. B).

`sample` generates the built-in catalog, `mufin.catalogs` reads others;
`fetch` (with `connections`, `addresses`, `hosts`), `fetch_log` and `image_store` get and keep the
pictures; `clean_rows` (with `cleaning`, `lookup`, `matching`), `catalog`, `relations`, `behaviour`
(with `baskets`, `cooccurrence`), `subsample` and `splits` make the curated data; `pixels` and
`tokens` turn pictures and titles into arrays, pictures of the `formats` that are read in processes
with bounds (`decoding`, `decode_worker`); `descriptors` gathers the batches.
"""
