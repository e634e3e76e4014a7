"""What authors of mappings work with: samples, examples as tests, generated messages, and the round trip."""
