"""The store: where releases and run data live."""
