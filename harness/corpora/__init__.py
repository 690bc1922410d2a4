"""One file a corpus: a name -> its train, validation and test text."""
