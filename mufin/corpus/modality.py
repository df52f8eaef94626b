"""The codes of modalities in a bag; -1 stands for padding."""

TEXT, IMAGE, LEXICAL = 0, 1, 2
