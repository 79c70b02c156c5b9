"""The packet walk: captures of one flow in every namespace, made into hops, explained."""
