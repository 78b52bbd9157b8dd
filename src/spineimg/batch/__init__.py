"""Many studies in one run that loses nothing: a ledger, one file a case, one table of all measurements."""
