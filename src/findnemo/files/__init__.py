"""Files of unknown origin: read within limits, in a process of their own where they could break the
reader, and written whole or not at all.

May be imported: the modules here. May import: errors.
"""
