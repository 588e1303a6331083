"""Next hops that are APIs; each is a `delivery.provider.Provider`."""
