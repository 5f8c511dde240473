"""Rows, strict reading of sources, tables, the tokenizer and the one way from messages to tokens."""
