package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// labelUse says whether a type of block takes a label.
type labelUse uint8

const (
	noLabel labelUse = iota
	oneLabel
	optionalLabel
)

// schema is what may stand in a block. It knows names only; the meaning is in
// the code that decodes the block.
type schema struct {
	kind  string
	label labelUse
	// free schemas take any attribute (locals).
	free       bool
	attributes []string
	blocks     []*schema
	// foreign holds advice for names that other tools use in this place.
	foreign map[string]string
}

// block returns the schema of a type of block inside s, or nil.
func (s *schema) block(kind string) *schema {
	for _, b := range s.blocks {
		if b.kind == kind {
			return b
		}
	}
	return nil
}

func (s *schema) blockNames() []string {
	var names []string
	for _, b := range s.blocks {
		names = append(names, b.kind)
	}
	return names
}

// Advice for what Terraform's resources have and a host has not.
var (
	noCloudTags = "Tags belong to the cloud's copy of the group; remove this line."
	noVPC       = "A host has no VPC; remove this line."
)

var (
	ingressRule = &schema{kind: "ingress", label: optionalLabel, attributes: ruleAttributes, foreign: foreignRule}
	egressRule  = &schema{kind: "egress", label: optionalLabel, attributes: ruleAttributes, foreign: foreignRule}

	ruleAttributes = []string{"description", "protocol", "from_port", "to_port", "ports", "cidr_blocks",
		"ipv6_cidr_blocks", "prefix_list_ids", "security_groups", "self"}
	foreignRule = map[string]string{
		"source_security_group_id":     "Write security_groups = [security_group.NAME].",
		"referenced_security_group_id": "Write security_groups = [security_group.NAME].",
		"prefix_list_id":               "Write prefix_list_ids = [prefix_list.NAME].",
		"cidr_block":                   `Write cidr_blocks = ["…"], a list.`,
		"cidr_ipv4":                    `Write cidr_blocks = ["…"], a list.`,
		"cidr_ipv6":                    `Write ipv6_cidr_blocks = ["…"], a list.`,
		"ipv6_cidr_block":              `Write ipv6_cidr_blocks = ["…"], a list.`,
		"ip_protocol":                  "The attribute is called protocol.",
		"port":                         "Write ports = […], or from_port and to_port.",
		"icmp_type":                    "Write the ICMP type as from_port.",
		"icmp_code":                    "Write the ICMP code as to_port.",
		"action":                       "Security groups hold allow rules only; a deny is an entry of a network_acl.",
		"tags":                         noCloudTags,
	}

	aclAttributes = []string{"rule_no", "action", "protocol", "from_port", "to_port", "icmp_type", "icmp_code",
		"cidr_block", "ipv6_cidr_block"}
	foreignACL = map[string]string{
		"rule_number":      "The attribute is called rule_no.",
		"rule_action":      "The attribute is called action.",
		"cidr_blocks":      "An entry has one cidr_block; write an entry for each prefix.",
		"ipv6_cidr_blocks": "An entry has one ipv6_cidr_block; write an entry for each prefix.",
		"ports":            "Write from_port and to_port; an entry has one range of ports.",
	}
)

// rootSchema is the whole language.
var rootSchema = &schema{blocks: []*schema{
	{kind: "variable", label: oneLabel, attributes: []string{"type", "default", "description"}},
	{kind: "locals", free: true},
	{kind: "prefix_list", label: oneLabel, attributes: []string{"description", "entries", "file"},
		blocks: nil, foreign: map[string]string{
			"entry":          `Write entries = ["198.51.100.0/24", …], a list of CIDRs.`,
			"name":           "The label of the block is the name; remove this line.",
			"address_family": "A list holds prefixes of both families; remove this line.",
			"max_entries":    "A list grows as it needs; remove this line.",
			"tags":           noCloudTags,
		}},
	{kind: "security_group", label: oneLabel, attributes: []string{"description", "members"},
		blocks: []*schema{ingressRule, egressRule}, foreign: map[string]string{
			"name":                   "The label of the block is the name; remove this line.",
			"name_prefix":            "The label of the block is the name; remove this line.",
			"vpc_id":                 noVPC,
			"tags":                   noCloudTags,
			"revoke_rules_on_delete": "Deleting a group always revokes; remove this line.",
			"rule":                   "Write ingress and egress blocks.",
		}},
	{kind: "network_acl", label: oneLabel, blocks: []*schema{
		{kind: "ingress", attributes: aclAttributes, foreign: foreignACL},
		{kind: "egress", attributes: aclAttributes, foreign: foreignACL},
	}, foreign: map[string]string{
		"vpc_id":     noVPC,
		"subnet_ids": "Interfaces name their ACL: write network_acl = network_acl.NAME in an interface block.",
		"tags":       noCloudTags,
	}},
	{kind: "interface", label: oneLabel, attributes: []string{"security_groups", "network_acl", "notrack"}, blocks: []*schema{
		{kind: "always_track", label: optionalLabel, attributes: []string{"cidr_blocks", "ipv6_cidr_blocks",
			"tcp_established_timeout", "udp_stream_timeout"}},
		{kind: "connection_tracking", attributes: []string{"tcp_established_timeout", "udp_timeout", "udp_stream_timeout"}},
		{kind: "log_denied", attributes: []string{"rate", "burst", "group"}},
	}},
	{kind: "host", attributes: []string{"dns_resolvers", "exempt", "icmp_errors"}, blocks: []*schema{
		{kind: "conntrack", attributes: []string{"max", "icmp_timeout", "generic_timeout"}},
	}},
	{kind: "test", label: oneLabel, attributes: []string{"interface", "direction", "protocol", "source", "dest",
		"source_port", "port", "icmp_type", "icmp_code", "expect", "tracked"}},
}, foreign: map[string]string{
	"resource": `Blocks stand without "resource": security_group "NAME" { … }.`,
	"local":    "The block is called locals.",
	"provider": "sgc needs no provider; remove this block.",
	"module":   "sgc has no modules: every policy file of a directory is read.",
	"data":     "sgc has no data sources; use variables.",
	"output":   "sgc has no outputs; remove this block.",
}}

// dynamicType generates blocks of the type that is its label.
const dynamicType = "dynamic"

// dynamicSchema is that of a dynamic block that generates blocks of s.
func dynamicSchema(s *schema) *schema {
	content := *s
	content.kind, content.label = "content", noLabel
	return &schema{
		kind:       dynamicType,
		label:      oneLabel,
		attributes: []string{"for_each", "iterator", "labels"},
		blocks:     []*schema{&content},
	}
}

// check reports what may not stand in a body, and labels that are missing or
// too many. Blocks with a fault of that kind are left out of the result.
//
// meant are the attributes that unknown ones probably stand for: that they are
// missing is no second mistake.
func (l *loader) check(b *body, s *schema) (known []*block, meant map[string]bool) {
	if !s.free {
		for _, a := range b.attributes {
			if slices.Contains(s.attributes, a.name) {
				continue
			}
			advice := l.unknownAttribute(a, b, s)
			for _, name := range s.attributes {
				if strings.Contains(advice, name) && b.attribute(name) == nil {
					if meant == nil {
						meant = map[string]bool{}
					}
					meant[name] = true
				}
			}
		}
	}
	for _, blk := range b.blocks {
		if blk.kind == dynamicType && len(s.blocks) > 0 && s != rootSchema {
			known = append(known, blk)
			continue
		}
		sub := s.block(blk.kind)
		if sub == nil {
			l.unknownBlock(blk, s)
			continue
		}
		if l.checkLabels(blk, sub) {
			known = append(known, blk)
		}
	}
	return known, meant
}

// unknownAttribute reports an attribute that s does not have, and returns what
// is offered in its place, if anything is.
func (l *loader) unknownAttribute(a *attribute, b *body, s *schema) (advice string) {
	var detail string
	switch {
	case s.foreign[a.name] != "":
		advice = s.foreign[a.name]
		detail = advice
	case s.block(a.name) != nil:
		detail = fmt.Sprintf("%s is a block: write %s { … } without an equals sign.", a.name, a.name)
	default:
		var free []string
		for _, name := range s.attributes {
			if b.attribute(name) == nil {
				free = append(free, name)
			}
		}
		advice = didYouMean(a.name, free)
		detail = advice
		if detail == "" && s == rootSchema {
			detail = " At the top of a file stand blocks only. Values of your own go into a locals block; values for variables go into a file outside this directory that --var-file names."
		} else if detail == "" && len(s.attributes) > 0 {
			detail = fmt.Sprintf(" It takes %s.", quotedList(s.attributes, "and"))
		}
		place := "A policy file"
		if s.kind != "" {
			place = "A block of type " + s.kind
		}
		detail = fmt.Sprintf("%s has no argument %q.%s", place, a.name, detail)
	}
	l.errorAt(a.nameRange, "Unknown argument", detail)
	return advice
}

func (l *loader) unknownBlock(blk *block, s *schema) {
	var detail string
	switch {
	case s.foreign[blk.kind] != "":
		detail = s.foreign[blk.kind]
	case slices.Contains(s.attributes, blk.kind):
		detail = fmt.Sprintf("%s is an argument: write %s = … with an equals sign.", blk.kind, blk.kind)
	case blk.kind == dynamicType:
		detail = "Dynamic blocks generate blocks inside a block, as ingress blocks inside a security_group."
	default:
		place := "A policy file"
		if s.kind != "" {
			place = "A block of type " + s.kind
		}
		detail = fmt.Sprintf("%s has no blocks of type %q.%s", place, blk.kind, didYouMean(blk.kind, s.blockNames()))
	}
	l.errorAt(blk.kindRange, "Unknown type of block", detail)
}

func (l *loader) checkLabels(blk *block, s *schema) bool {
	most := 1
	if s.label == noLabel {
		most = 0
	}
	switch {
	case len(blk.labels) > most && most == 0 && s.kind == "locals":
		l.errorAt(blk.labels[0].rng, "Unexpected label", "A locals block takes no label; the names of its arguments are the names of the locals.")
	case len(blk.labels) > most && most == 0:
		l.errorAt(blk.labels[0].rng, "Unexpected label", fmt.Sprintf("A block of type %s takes no label; remove it.", blk.kind))
	case len(blk.labels) > most:
		l.errorAt(blk.labels[1].rng, "Unexpected label", fmt.Sprintf("A block of type %s takes one label; remove the others.", blk.kind))
	case len(blk.labels) == 0 && s.label == oneLabel:
		l.errorAt(hcl.RangeBetween(blk.kindRange, blk.header), "Missing name", fmt.Sprintf("A block of type %s needs a name: %s \"NAME\" { … }.", blk.kind, blk.kind))
	default:
		return true
	}
	return false
}
