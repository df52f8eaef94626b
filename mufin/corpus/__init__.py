"""From product files to the batches that the networks read (MUFIN Sec. 4, Datasets; App. B).

`sources` and `xmlrepo` read products from `text_files`, `sample` generates the built-in catalog;
`fetch` (with `connections`, `addresses`, `hosts`), `fetch_log` and `image_store` get and keep the
pictures; `cleaning`, `lookup`, `subsample` and `splits` make the curated data; `pixels` and
`tokens` turn pictures and titles into arrays, pictures of the `formats` that are read in processes
with bounds (`decoding`, `decode_worker`); `descriptors` gathers the batches.
"""
