"""From product files to the batches that the networks read (MUFIN Sec. 4, Datasets; App. B).

`sources` and `xmlrepo` read products, `sample` generates the built-in catalog; `fetch`, `fetch_log`
and `image_store` get and keep the pictures; `cleaning`, `lookup`, `subsample` and `splits` make the
curated data; `pixels`, `decoding` and `tokens` turn pictures and titles into arrays; `descriptors`
gathers the batches.
"""
