"""The offline voice: a recognizer, a dialogue and a speaker that need no network, no key and no GPU. They prove that the path
works, from a caller's mouth to a caller's ear and to a client's functions; they are no model."""
