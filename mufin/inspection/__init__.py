"""`mufin inspect`, and what `mufin check` says about the catalog."""
