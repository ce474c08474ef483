// Package lab builds private network namespaces, sends real and hand-made
// packets through them, and says what the kernel did with each.
//
// A Namespace is anonymous: it lives as long as a file descriptor of this
// process, so that nothing is left behind even when the process is killed. A
// Stand is a host whose interfaces are wires that end in the lab's own hands,
// and a Judge tells for each of many packets whether the host's ruleset let it
// pass and what conntrack made of it.
//
// The package is a witness, so it shares no code with what it watches: it opens
// its own nf_tables and conntrack connections and never reads sgc's table. Only
// the copies of packets that the kernel logs are read as sgc log reads them. It
// needs no external program. It works as root, and without privileges inside a
// user namespace, which RunInUserNamespace makes.
package lab
