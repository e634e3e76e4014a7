"""The mapping of the tests of `load`, on whichever engine and store."""

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: werk, topic: messung}
points:
  measurement: {const: klima}
  tags: [ort]
  fields: {grad: grad}
  timestamp: {expr: zeit, format: unix_s}
"""
