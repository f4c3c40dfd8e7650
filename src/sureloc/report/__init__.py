"""Pictures and pages for people: what was found, how certain it is, and where not to trust it."""
