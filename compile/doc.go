// Package compile turns a policy into the nftables table that enforces it.
package compile
