"""/v1/responses: turns of the model that are kept, streamed, followed, cancelled and gone on from."""
