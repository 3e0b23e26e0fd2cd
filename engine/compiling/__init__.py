"""From a model's shapes to compiled steps that fit into the memory there is."""
