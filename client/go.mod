module github.com/lanyard-proxy/lanyard/client

go 1.24
