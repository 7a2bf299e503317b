module github.com/lanyard-proxy/lanyard/examples/go-app

go 1.26.0

require (
	github.com/google/go-github/v84 v84.0.0
	github.com/lanyard-proxy/lanyard/client v0.0.0
)

require github.com/google/go-querystring v1.2.0 // indirect

replace github.com/lanyard-proxy/lanyard/client => ../../client
