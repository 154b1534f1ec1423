"""A package, so that files here may be called as files of other rooms are."""
