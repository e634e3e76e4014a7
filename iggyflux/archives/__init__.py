"""Archives: files of messages, on this machine or in an object store, compressed or not, as the source of a writer.

`files` finds and opens them, `records` splits their content into messages, `source` is a `Source` that can be resumed.
"""
