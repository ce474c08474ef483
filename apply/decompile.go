package apply

// Text returns the rule as nft writes it, as far as sgc knows the words.
func (r Rule) Text() string { return "?" }
