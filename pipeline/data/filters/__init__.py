"""Filters: small named rules that a row passes, is changed by, or is dropped by.

There is none for broken alternation of turns. No row can hold it: the readers set such a row aside as E_ROLE.
"""
