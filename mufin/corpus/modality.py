"""Codes of the modalities in a bag of descriptors (MUFIN Sec. 3, Notation); -1 is padding."""

TEXT, IMAGE, LEXICAL = 0, 1, 2
