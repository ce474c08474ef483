package apply

// unmatched is an id that equals no other, not even itself.
const unmatched = -1

// maxPairs bounds the work of align: above it, equal rules are paired in order
// and not in every possible way, and the result may keep fewer than it could.
const maxPairs = 1 << 21

// align finds the longest common subsequence of two lists of ids: for every
// index of have the index of want that it is kept for, or -1. Kept indices
// rise in both lists.
func align(have, want []int32) []int32 {
	kept := make([]int32, len(have))
	for i := range kept {
		kept[i] = -1
	}
	start := 0
	for start < len(have) && start < len(want) && same(have[start], want[start]) {
		kept[start] = int32(start)
		start++
	}
	endHave, endWant := len(have), len(want)
	for endHave > start && endWant > start && same(have[endHave-1], want[endWant-1]) {
		endHave--
		endWant--
		kept[endHave] = int32(endWant)
	}
	alignMiddle(have[start:endHave], want[start:endWant], kept[start:endHave], int32(start))
	return kept
}

func same(a, b int32) bool { return a == b && a != unmatched }

// alignMiddle is the algorithm of Hunt and Szymanski: of all pairs of equal
// ids, in the order of have and downwards in want, the longest rising sequence
// of positions in want. It fills kept, and adds shift to the positions.
func alignMiddle(have, want, kept []int32, shift int32) {
	if len(have) == 0 || len(want) == 0 {
		return
	}
	positions := make(map[int32][]int32, len(want))
	for i, id := range want {
		if id != unmatched {
			positions[id] = append(positions[id], int32(i))
		}
	}
	pairs := 0
	for _, id := range have {
		pairs += len(positions[id])
	}
	inOrder := pairs > maxPairs
	used := map[int32]int{}

	type link struct {
		have, want int32
		before     int32 // index of the link before it, or -1
	}
	var links []link
	// tails[n] is the link that ends the rising sequence of length n+1 with
	// the smallest position in want.
	var tails []int32
	for i, id := range have {
		at := positions[id]
		if inOrder {
			n := used[id]
			if n >= len(at) {
				continue
			}
			used[id]++
			at = at[n : n+1]
		}
		for n := len(at) - 1; n >= 0; n-- {
			low, high := 0, len(tails)
			for low < high {
				middle := (low + high) / 2
				if links[tails[middle]].want < at[n] {
					low = middle + 1
				} else {
					high = middle
				}
			}
			l := link{int32(i), at[n], -1}
			if low > 0 {
				l.before = tails[low-1]
			}
			links = append(links, l)
			if low == len(tails) {
				tails = append(tails, int32(len(links)-1))
			} else {
				tails[low] = int32(len(links) - 1)
			}
		}
	}
	if len(tails) == 0 {
		return
	}
	for n := tails[len(tails)-1]; n >= 0; n = links[n].before {
		kept[links[n].have] = links[n].want + shift
	}
}
