// Package conntrack is the kernel's connection tracking of one network
// namespace: its entries, as a stream and judged by a policy; its counters; its
// timeouts and limit; and the sockets whose flows it ought to know. It is the only
// package that speaks ctnetlink, and it never speaks nf_tables.
//
//	entries.go   Table.Entries      conntrack -L
//	batch.go     Batch.Delete       conntrack -D, in batches
//	             Batch.SetTimeout   conntrack -U -t
//	create.go    Batch.Create       conntrack -I
//	stats.go     Table.Counters     conntrack -S, conntrack -C
//	tune.go      Table.Settings     nfct timeout default-get, sysctl
//	sockets.go   Table.Sockets      ss -tuan
//	openers.go   Openers.Opened     who opened a socket's flow
//	             Table.Seed         entries for the host's sockets
//	routes.go    Table.Routes       ip address, ip rule, ip route get
//	judge.go     Judge.Entry        the policy's word on an entry
//	change.go    Change.Entry       what a change of policy does to its flow
//
// Nothing here is kept for a whole table: an entry is valid while the function
// runs that it is handed to.
package conntrack
