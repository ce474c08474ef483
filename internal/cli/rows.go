package cli

import "sgc/policies"

func rowsOf(changes []policies.Change, verbose bool) []row { return nil }
