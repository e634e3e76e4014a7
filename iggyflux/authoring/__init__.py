"""Tools for authors of mappings: samples, examples as tests, generated messages, and the round trip."""
