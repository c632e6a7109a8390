"""One quota for the whole fleet: hosts lease slots of an account from books that an engine keeps (docs/adr/0030)."""
