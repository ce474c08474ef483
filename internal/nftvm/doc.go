package nftvm
