// Package apply is the kernel's nf_tables: it reads the live table, compares it
// with the wanted one, and commits exactly the difference in one transaction.
package apply
