"""Shards to records, and records to arrays on the device."""
