"""Models: a gate that decides, versions that runs make, and a champion that is moved by compare-and-swap."""
