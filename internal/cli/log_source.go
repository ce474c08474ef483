package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/policies"
)

// logSource is what log reads.
type logSource struct {
	// groups are sorted.
	groups []uint16
	// blocks are the names of the interface blocks that log to the groups, as
	// far as they are known: without a policy, none are.
	blocks []string
}

func (l logSource) String() string {
	var numbers []string
	for _, g := range l.groups {
		numbers = append(numbers, strconv.Itoa(int(g)))
	}
	text := "nflog group " + strings.Join(numbers, ", ")
	if len(numbers) > 1 {
		text = "nflog groups " + strings.Join(numbers, ", ")
	}
	if len(l.blocks) > 0 {
		text += ": what is refused on " + strings.Join(l.blocks, ", ")
	}
	return text
}

// logSource finds out which groups to read.
func (s *session) logSource(ctx context.Context, o logOptions) (logSource, error) {
	if o.Path == "" && len(o.Groups) > 0 {
		return logSource{groups: o.Groups}, nil
	}
	policy, of, err := s.loggingPolicy(ctx, o.Path)
	if err != nil {
		return logSource{}, err
	}
	var from logSource
	var kernelLog []string
	logs := false
	for _, i := range policy.Interfaces {
		switch {
		case i.Log == nil:
			continue
		case i.Log.Group == nil:
			kernelLog = append(kernelLog, i.Name)
		case len(o.Groups) == 0 || slices.Contains(o.Groups, uint16(*i.Log.Group)):
			from.groups = append(from.groups, uint16(*i.Log.Group))
			from.blocks = append(from.blocks, i.Name)
		}
		logs = true
	}
	slices.Sort(from.groups)
	from.groups = slices.Compact(from.groups)
	switch {
	case !logs:
		return logSource{}, fmt.Errorf("no interface of %s logs what it refuses: give it a log_denied block, with a group", of)
	case len(from.groups) > 0:
		if len(kernelLog) > 0 && len(o.Groups) == 0 {
			s.inform("%s", s.whereKernelLog(kernelLog))
		}
		if len(o.Groups) > 0 {
			// What no block of the policy logs to may be used by another table.
			from.groups = o.Groups
		}
		return from, nil
	case len(o.Groups) > 0:
		return logSource{}, fmt.Errorf("no interface of %s logs to nflog group %d", of, o.Groups[0])
	}
	return logSource{}, errors.New(s.whereKernelLog(kernelLog) + " To read it here, give log_denied a group")
}

// loggingPolicy returns the policy at the path, or the one that is enforced,
// and what to call it.
func (s *session) loggingPolicy(ctx context.Context, path string) (policy *policies.Policy, of string, err error) {
	if path != "" {
		// Whether all of it can be enforced does not matter here.
		loaded, err := s.loadPolicy(ctx, path, s.inputs())
		if err != nil {
			return nil, "", err
		}
		if err := s.report(loaded); err != nil {
			return nil, "", err
		}
		return loaded.Policy, path, nil
	}
	dir, err := s.existingDir()
	if err != nil {
		return nil, "", err
	}
	if dir != nil {
		record, err := dir.Applied()
		if err != nil {
			return nil, "", err
		}
		last, err := read(record)
		if err != nil {
			return nil, "", err
		}
		if last != nil && last.Policy != nil {
			return last.Policy, "the policy that is enforced", nil
		}
	}
	return nil, "", errors.New("there is no record of an enforced policy that would tell which nflog groups to read: name a policy (sgc log PATH), or a group (sgc log --group N)")
}

// whereKernelLog says where to find what interface blocks without a group log.
func (s *session) whereKernelLog(blocks []string) string {
	var addresses, patterns []string
	for _, b := range blocks {
		addresses = append(addresses, "interface."+b)
		// The start of the prefix that all refusals of the block have.
		prefix, _, _ := strings.Cut(compile.LogPrefix(b, flow.Ingress, ""), flow.Ingress.String())
		patterns = append(patterns, fmt.Sprintf("-e '%s'", prefix))
	}
	verb := "logs"
	if len(blocks) > 1 {
		verb = "log"
	}
	text := fmt.Sprintf("%s %s to the kernel log, which is read with journalctl -k or dmesg: journalctl -k -f | grep -F %s.",
		strings.Join(addresses, ", "), verb, strings.Join(patterns, " "))
	if s.Netns != "" {
		text += " Of namespaces other than the host's the kernel logs only with sysctl net.netfilter.nf_log_all_netns=1."
	}
	return text
}
