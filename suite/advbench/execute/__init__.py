"""Where jobs run. An executor takes the lines of a plan and gives back records, whatever happens to a job."""
