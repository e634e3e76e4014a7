"""The language service: what a mapping document means while it is written, with what samples show of it.

Pure: text and samples in, data out.  `validate`, the language server and the playground are faces of it.
"""
