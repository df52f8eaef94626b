"""The nine stages of MUFIN as scripts that DVC runs."""
