"""What goes in and comes out, as data: requests, options, keys, events, and what a store must offer."""
