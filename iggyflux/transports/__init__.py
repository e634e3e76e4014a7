"""One package a system; `base` has the interfaces that a route needs of them, and `runner.factories` builds them."""
