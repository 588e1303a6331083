"""The nouns of the house as frozen values. No I/O here."""
