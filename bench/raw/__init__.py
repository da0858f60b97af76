"""The raw limits: the same work by the shortest path that the parts allow, on the same servers."""
