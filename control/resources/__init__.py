"""The kinds that the mesh knows: structs, validation, schemas, printed columns. Bottom floor; quiet."""
