"""Side by side: smtp-proxy, its peers and its limit, on one machine, in turns."""
