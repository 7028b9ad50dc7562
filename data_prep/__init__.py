"""One module per dataset: original files to the schema to TFDS/array_record shards."""
