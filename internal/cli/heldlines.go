package cli

// heldLines puts what is held of one flow on several interfaces for the same time
// into one view that names them all, for people: where the first of them was, in
// the order of their lists. Ports that are held stay as they are.
func heldLines(held []heldView) []heldView {
	var lines []heldView
	of := map[heldView][]int{}
	for _, v := range held {
		if v.Flow == "" {
			lines = append(lines, v)
			continue
		}
		key := v
		key.Interface, key.Expires = "", 0
		joined := false
		for _, i := range of[key] {
			// The kernel tells of one after the other, and seconds are rounded.
			if d := lines[i].Expires - v.Expires; -1 <= d && d <= 1 {
				lines[i].Interface += ", " + v.Interface
				joined = true
				break
			}
		}
		if !joined {
			of[key] = append(of[key], len(lines))
			lines = append(lines, v)
		}
	}
	return lines
}

// heldFlowCount is how many single flows are among what is held.
func heldFlowCount(held []heldView) int {
	flows := map[string]bool{}
	for _, v := range held {
		if v.Flow != "" {
			flows[v.Flow] = true
		}
	}
	return len(flows)
}
