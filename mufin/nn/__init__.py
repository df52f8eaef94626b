"""The networks: encoders, attention, bags, classifiers, and how a MUFIN is built from them."""
