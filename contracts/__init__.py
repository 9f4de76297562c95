"""What is agreed: the contract on the chain and the content store. Imports none of the other packages."""
