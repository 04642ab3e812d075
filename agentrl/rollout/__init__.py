"""Episodes: playing one, supervising many, and cutting whole groups into batches under the staleness bound."""
