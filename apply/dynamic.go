package apply

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// DynamicElements returns what packets have put into a set of the table inet sgc
// and time has not taken out yet, with the time that each has left, sorted by
// First; none if the kernel holds no such set. No generation counts what packets
// do: another element may be there a moment later.
func (k *Kernel) DynamicElements(ctx context.Context, set string) ([]ruleset.TimedElement, error) {
	c, err := k.dial()
	if err != nil {
		return nil, err
	}
	elements, err := c.dynamicElements(ctx, set)
	if err != nil {
		err = fmt.Errorf("elements of set %s: %w", set, explain(err))
	}
	return elements, errors.Join(err, c.close())
}

func (c *conn) dynamicElements(ctx context.Context, name string) ([]ruleset.TimedElement, error) {
	s, err := c.set(ctx, tableName, name)
	if err == nil {
		err = c.readTimed(ctx, tableName, s, func(int) {})
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil // or no more
	case err != nil:
		return nil, err
	}
	return s.Timed, nil
}

// RemoveDynamic takes elements, by their keys, out of a dynamic set of the table,
// which the kernel holds. What is not there any more is no error. It ends as
// ChangeTimed does.
//
// A packet that is on its way through the rules may put its element in again.
func (k *Kernel) RemoveDynamic(ctx context.Context, table *ruleset.Table, set string, keys []string) (Generations, error) {
	for _, s := range table.Sets {
		if s.Name != set || !s.Dynamic {
			continue
		}
		changes := make([]TimedChange, len(keys))
		for i, key := range keys {
			if len(key) != s.KeySize() {
				return Generations{}, fmt.Errorf("a key of set %s has %d bytes: %d are wanted", set, len(key), s.KeySize())
			}
			changes[i] = TimedChange{Set: set, Remove: true, Element: ruleset.TimedElement{First: key, Last: key}}
		}
		return k.changeElements(ctx, table, map[*ruleset.Set][]TimedChange{s: changes})
	}
	return Generations{}, fmt.Errorf("elements of set %s: there is no such dynamic set", set)
}
