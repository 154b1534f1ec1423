"""Files of unknown origin: read within limits, in a separate process if they could break the
reader, and written whole or not at all.

May be imported: the modules here. May import: errors.
"""
